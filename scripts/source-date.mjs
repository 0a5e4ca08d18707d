/**
 * The time that what is built carries, in seconds since 1970, where the environment gives one:
 * https://reproducible-builds.org/specs/source-date-epoch/
 * @throws Error if it is no number
 */
export function sourceDate(text = process.env.SOURCE_DATE_EPOCH) {
  if (text === undefined) return undefined;
  if (!/^\d{1,11}$/.test(text)) throw new Error(`SOURCE_DATE_EPOCH: "${text}" is no number of seconds since 1970`);
  return Number(text);
}
