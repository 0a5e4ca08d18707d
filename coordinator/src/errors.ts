/** Why a coordinator could not start, as one line for its operator, and the exit code that says whose fault it was. */
export class StartError extends Error {
  readonly exitCode: 1 | 2;

  /** 2: what it was given is wrong; 1: what it found is. */
  constructor(message: string, { exitCode, cause }: { exitCode: 1 | 2; cause?: unknown }) {
    super(message, { cause });
    this.name = "StartError";
    this.exitCode = exitCode;
  }
}
