import type { Writable } from "node:stream";
import { EXIT } from "./errors.ts";

/** Where a command writes what it has to say. */
export interface Output {
  /**
   * Writes a line, and settles once it is handed over: a slow reader slows the command down, and loses nothing when the
   * command ends. If the reader is gone, nothing more is written, and the command goes on with its work.
   */
  line(text: string): Promise<void>;
  /** Settles when the first line is lost. */
  lost: Promise<void>;
  /** Why lines were lost, unless the reader had read enough. */
  problem(): Error | undefined;
}

/** What a write gives if its reader is gone: `| head -1`, or a terminal that was closed. */
const READER_GONE: ReadonlyArray<string | undefined> = ["EPIPE", "ECONNRESET", "EIO"];

/** An output to stdout or stderr. */
export function createOutput(stream: Writable): Output {
  const { promise: lost, resolve: lose } = Promise.withResolvers<void>();
  let cause: NodeJS.ErrnoException | undefined;

  function failed(error: NodeJS.ErrnoException): void {
    cause ??= error;
    lose();
  }

  // Without a listener the error ends the process with a stack trace.
  stream.on("error", failed);
  return {
    line: (text) =>
      new Promise((resolve) => {
        if (cause !== undefined) return resolve();
        stream.write(`${text}\n`, (error) => {
          if (error) failed(error);
          resolve();
        });
      }),
    lost,
    problem: () => (READER_GONE.includes(cause?.code) ? undefined : cause),
  };
}

/**
 * The exit code of a command: the one that its work earned, or `failed` if the work is done but its results could not be
 * written. Says so on stderr.
 * @param name the command, which begins the line on stderr
 */
export async function exitCodeFor(
  earned: number,
  { name, out, err }: { name: string; out: Output; err: Output },
): Promise<number> {
  const problem = out.problem();
  if (problem === undefined) return earned;
  await err.line(`${name}: cannot write to stdout: ${problem.message}`);
  return earned === EXIT.done ? EXIT.failed : earned;
}
