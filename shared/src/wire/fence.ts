import * as Type from "typebox";

/**
 * The place of a directive in the order of all directives: the term of the leader that sent it, and its revision within
 * that term. Both only grow, so that nothing of a deposed leader is obeyed after its successor spoke.
 */
export const Fence = Type.Object({
  term: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
  revision: Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
});
export type Fence = Type.Static<typeof Fence>;

/** Negative where a is older than b, 0 where they are the same, positive where a is newer. */
export function compareFences(a: Fence, b: Fence): number {
  return a.term - b.term || a.revision - b.revision;
}
