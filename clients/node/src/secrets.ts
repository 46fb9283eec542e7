/** Names that hold what no trail should keep, whatever their case, with any words before and behind. */
const SECRET = /passw(?:or)?d|passphrase|secret|token|authorization|credential|api_?-?key|private_?-?key|cookie|session_?-?id|otp|cvv|cvc|(?:^|_)pin$/i;

/** What stands in their place. */
const OMITTED = "[omitted]";

/**
 * A copy of a value in which members of objects that are named as secrets are, or as one of `names`, hold "[omitted]", as deep as they
 * stand: `params: omitSecrets(req.body)`.
 */
export const omitSecrets = <T>(value: T, ...names: string[]): T => {
  const given = new Set(names.map((name) => name.toLowerCase()));
  const isSecret = (name: string): boolean => SECRET.test(name) || given.has(name.toLowerCase());
  const seen = new Map<object, unknown>();
  const copy = (part: unknown): unknown => {
    if (typeof part !== "object" || part === null) return part;
    const known = seen.get(part);
    if (known) return known;
    if (Array.isArray(part)) {
      const members: unknown[] = [];
      seen.set(part, members);
      for (const member of part) members.push(copy(member));
      return members;
    }
    const prototype: unknown = Object.getPrototypeOf(part);
    // What says itself how it becomes JSON, as a Date does, stays what it is.
    if (typeof (part as { toJSON?: unknown }).toJSON === "function") return part;
    if (prototype !== null && prototype !== Object.prototype && ArrayBuffer.isView(part)) return part;
    const members: Record<string, unknown> = {};
    seen.set(part, members);
    for (const [name, member] of Object.entries(part)) {
      const value = isSecret(name) && member !== null && member !== undefined ? OMITTED : copy(member);
      Object.defineProperty(members, name, { value, writable: true, enumerable: true, configurable: true });
    }
    return members;
  };
  return copy(value) as T;
};
