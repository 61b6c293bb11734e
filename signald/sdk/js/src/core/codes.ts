// Close codes: what the receiver of a close may do. Unknown codes, and no code at all, mean: connect again and resume.

export const NORMAL = 1000;
export const GOING_AWAY = 1001;
export const REFUSED = 1013;
export const MOVED = 4001;
export const UNAUTHENTICATED = 4401;
export const FORBIDDEN = 4403;
export const NOTHING_TO_RESUME = 4404;
export const SUPERSEDED = 4409;

/** Codes after which no connection to the same service is sensible: the end by `bye`, broken rules, wrong credentials, another holder. */
const FINAL: ReadonlySet<number | null> = new Set([1000, 1002, 1003, 1007, 1008, 1009, 4001, 4400, 4401, 4403, 4409, 4410]);

/** Why a close with `code` is final, in words; null: connect again. */
export function final(code: number | null, reason: string): string | null {
  return FINAL.has(code) ? reason || `close ${code}` : null;
}
