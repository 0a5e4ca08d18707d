/** How much of a value is shown, in characters: enough to find it by, whatever somebody wrote there. */
const SHOWN = 300;

/** A value as a message names it: its JSON, cut where it is long. */
export function show(value: unknown): string {
  const json = JSON.stringify(value) ?? "nothing";
  return json.length <= SHOWN ? json : `${json.slice(0, SHOWN)}…`;
}
