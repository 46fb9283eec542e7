/** Names that hold what no trail should keep, in any case, with any words before and behind. */
const SECRET = /passw(?:or)?d|passphrase|secret(?!ar[iy])|token|authorization|credential|cookie|(?:api|private|access)[-_ ]?key/i;
/** Short ones, which stand in other words too: as words of their own, in snake_case, kebab-case and camelCase. */
const SHORT = (() => {
  const [lower, upper] = ["pwd|otp|pin|cvv|cvc", "PWD|OTP|PIN|CVV|CVC|Pwd|Otp|Pin|Cvv|Cvc"];
  return new RegExp(`(?<![A-Za-z])(?:${lower}|${upper})(?![a-z])|(?<=[a-z0-9])(?:${upper})(?![a-z])`);
})();

/** What stands in their place. */
export const OMITTED = "[omitted]";

/** How deep it is looked into values. No context is deeper. */
const MAX_DEPTH = 127;

/** Whether a member is a secret, by its name and its value. */
export type IsSecret = (name: string, value: unknown) => boolean;

/** Members that are named as secrets are, or as one of `names`. Nothing, and a yes or no, as in `hasPassword`, are none. */
export const secretsOf = (names: readonly string[]): IsSecret => {
  const given = new Set(names.map((name) => name.toLowerCase()));
  return (name, value) =>
    value !== null && value !== undefined && typeof value !== "boolean" && typeof value !== "function" &&
    (SECRET.test(name) || SHORT.test(name) || given.has(name.toLowerCase()));
};

/**
 * A copy of a value in which members of objects that are named as secrets are, or as one of `names`, hold "[omitted]", as
 * deep as they stand: `bemiContext({ params: omitSecrets(body) })`. So does what cannot be read.
 */
export const omitSecrets = <T>(value: T, ...names: string[]): T => {
  const isSecret = secretsOf(names);
  const seen = new Map<object, unknown>();
  const copy = (part: unknown, depth: number): unknown => {
    if (typeof part !== "object" || part === null || ArrayBuffer.isView(part)) return part;
    const known = seen.get(part);
    if (known !== undefined) return known;
    if (depth > MAX_DEPTH) return OMITTED;
    if (Array.isArray(part)) {
      const members: unknown[] = [];
      seen.set(part, members);
      for (let at = 0; at < part.length; at++) members.push(read(part, String(at), depth));
      return members;
    }
    const { toJSON } = part as { toJSON?: unknown };
    if (typeof toJSON === "function") {
      // What becomes no object, as a Date, stays what it is.
      const made: unknown = toJSON.call(part, "");
      if (typeof made !== "object" || made === null) return part;
      if (made !== part) return copy(made, depth + 1);
    }
    const members: Record<string, unknown> = {};
    seen.set(part, members);
    for (const name of Object.keys(part)) {
      const value = read(part, name, depth);
      Object.defineProperty(members, name, { value, writable: true, enumerable: true, configurable: true });
    }
    return members;
  };
  const read = (holder: object, name: string, depth: number): unknown => {
    try {
      const member = (holder as Record<string, unknown>)[name];
      return !Array.isArray(holder) && isSecret(name, member) ? OMITTED : copy(member, depth + 1);
    } catch {
      return OMITTED;
    }
  };
  try {
    return copy(value, 1) as T;
  } catch {
    return OMITTED as T;
  }
};
