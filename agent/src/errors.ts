/** The exit codes of the agent's commands. */
export const EXIT = {
  done: 0,
  /** Some deletion failed, or the agent could not go on. */
  failed: 1,
  /** A flag, a policy or a directory is wrong; one line on stderr tells which. */
  badInput: 2,
  /** What was mounted was deleted on the host: only a restart can mount what is there now (EX_TEMPFAIL of sysexits.h). */
  restart: 75,
} as const;

/** Something that the caller must correct: shown as one line, without a stack. */
export class InputError extends Error {
  override name = "InputError";
}
