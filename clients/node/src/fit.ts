import { type IsSecret, OMITTED } from "./secrets.js";

/** Writes contexts as JSON that fits: what does not fit, or cannot be written, is left out by itself, and named. */

/** The key that names what was left out. */
export const OMITTED_KEY = "bemi_omitted";

/** How much JSON may take. */
export interface Limits {
  /** In bytes. */
  readonly size: number;
  /** Members of objects and elements of arrays, at all levels. */
  readonly members: number;
}

/** How deep arrays and objects may nest, for the server. */
const MAX_DEPTH = 127;
/** How many values of one member of the context are looked at. */
const MAX_VISITED = 50_000;
/** How many members of one array or object are left out by themselves; for more of them, the whole of it is. */
const MAX_PARTS = 16;
/** How many are named, and how many characters of each name. */
const MAX_NAMED = 32;
const MAX_NAME = 100;
/** A name for all that are not named. */
const OTHERS = "(others)";
/** Members of a context that say who acts: left out last. */
const WHO = /^(?:user|actor|account|tenant)(?:_?id)?$/i;

/** Why something was left out, as it is recorded, and the code of the warning. */
export const REASONS = {
  TOO_LONG: "longer than the limit",
  TOO_DEEP: "deeper than the limit",
  TOO_MANY: "more members than the limit",
  NOT_JSON: "circular, or cannot be read",
} as const;
export type Reason = keyof typeof REASONS;

/** A value as JSON, with the key before it. */
interface Node {
  readonly name: string;
  readonly key: string;
  readonly text: string;
  readonly isArray: boolean;
  /** Of an array or an object. */
  children?: Node[];
  /** What was left out of it. */
  readonly omitted: Map<string, Reason>;
  /** Bytes with the key and a comma. */
  size: number;
  members: number;
}

export interface Fitting {
  readonly json: string;
  readonly omitted: ReadonlyMap<string, Reason>;
}

/** How many bytes JSON takes; numbers, as many as they may take in the server, which writes out their exponents. */
type Measure = (json: string) => number;

/**
 * The members of an object as JSON that fits. `escape` is applied to the JSON of each string; members for which
 * `isSecret` holds are "[omitted]".
 */
export const fit = (
  context: object,
  limits: Limits,
  escape: (json: string) => string,
  measure: Measure,
  isSecret?: IsSecret,
): Fitting => {
  const ancestors = new Set<object>();
  let visited = 0;

  const leaf = (name: string, key: string, text: string): Node => {
    const digits = /^-?\d[^e]*e/.test(text) ? 330 : 0;
    const size = measure(key) + measure(text) + digits + 1;
    return { name, key, text, isArray: false, omitted: new Map(), size, members: 1 };
  };

  /** What JSON.stringify makes of a value: undefined if it leaves it out, a reason if there is nothing that fits. */
  const visit = (holder: object, name: string, depth: number, key: string): Node | Reason | undefined => {
    visited++;
    try {
      const given = (holder as Record<string, unknown>)[name];
      const value = isSecret && !Array.isArray(holder) && isSecret(name, given) ? OMITTED : plain(given, name);
      if (value === undefined || typeof value === "function" || typeof value === "symbol") return undefined;
      if (typeof value !== "object" || value === null) {
        if (typeof value === "string" && value.length > limits.size) return "TOO_LONG";
        const node = leaf(name, key, escape(JSON.stringify(value)));
        return node.size > limits.size ? "TOO_LONG" : node;
      }
      if (ancestors.has(value)) return "NOT_JSON";
      if (depth > MAX_DEPTH) return "TOO_DEEP";
      if (visited > MAX_VISITED || lengthOf(value) > limits.members) return "TOO_MANY";
      const node = container(value, name, key, depth);
      if (fits(node, limits) || shrink(node, limits, false)) return node;
      return node.members > limits.members ? "TOO_MANY" : "TOO_LONG";
    } catch {
      return "NOT_JSON";
    }
  };

  const container = (value: object, name: string, key: string, depth: number): Node => {
    const isArray = Array.isArray(value);
    const node: Node = { ...leaf(name, key, ""), isArray, children: [] };
    node.size += 2;
    ancestors.add(value);
    try {
      for (const member of isArray ? Array.from(value, (_element, i) => String(i)) : Object.keys(value)) {
        if (depth === 1) {
          // Named by fit() itself.
          if (member === OMITTED_KEY) continue;
          visited = 0;
        }
        if (!isArray && member.length > limits.size) {
          node.omitted.set(member, "TOO_LONG");
          continue;
        }
        const memberKey = isArray ? "" : `${escape(JSON.stringify(member))}:`;
        const made = visit(value, member, depth + 1, memberKey);
        if (typeof made === "object") add(node, made);
        else if (made !== undefined) node.omitted.set(member, made);
        if (isArray && typeof made !== "object") add(node, leaf(member, "", "null"));
      }
    } finally {
      ancestors.delete(value);
    }
    return node;
  };

  const root = container(context, "", "", 1);
  const earlier = omittedBefore(context);
  const collected = (): Map<string, Reason> => {
    const omitted = new Map<string, Reason>();
    collect(root, "", omitted);
    return omitted;
  };
  const isWhole = earlier.size === 0 && fits(root, limits) && collected().size === 0;
  if (isWhole) return { json: write(root), omitted: new Map() };

  const room = { size: Math.min(4096, limits.size >> 2), members: MAX_NAMED + 3 };
  shrink(root, { size: limits.size - room.size, members: Math.max(limits.members - room.members, 1) }, true);
  const omitted = collected();
  const told = names(earlier, omitted, room.size, escape, measure);
  const json = write(root);
  return { json: `${json.slice(0, -1)}${json === "{}" ? "" : ","}"${OMITTED_KEY}":${told}}`, omitted };
};

const fits = (node: Node, limits: Limits): boolean => node.size <= limits.size && node.members - 1 <= limits.members;

const add = (node: Node, child: Node): void => {
  (node.children as Node[]).push(child);
  node.size += child.size;
  node.members += child.members;
};

/** The value that JSON.stringify would write. */
const plain = (value: unknown, name: string): unknown => {
  if (typeof value === "object" && value !== null && ArrayBuffer.isView(value)) {
    // The JSON of a long one would be made for nothing.
    if (value.byteLength > 10_000) return new Array(10_000);
  }
  let read = value;
  if ((typeof read === "object" && read !== null) || typeof read === "bigint") {
    const { toJSON } = read as { toJSON?: unknown };
    if (typeof toJSON === "function") read = (toJSON as (name: string) => unknown).call(read, name);
  }
  if (read instanceof Number || read instanceof String || read instanceof Boolean || read instanceof BigInt) {
    read = read.valueOf();
  }
  if (typeof read !== "bigint") return read;
  // A number where it is exact.
  const number = Number(read);
  return Number.isSafeInteger(number) ? number : read.toString();
};

const lengthOf = (value: object): number => (Array.isArray(value) ? value.length : Object.keys(value).length);

/**
 * Leaves out the largest members of a node, or parts of them where that is enough, until it fits. False, if more of them
 * would have to go than can be named; never of a context.
 */
const shrink = (node: Node, limits: Limits, isRoot: boolean): boolean => {
  if (!node.children) return false;
  const isLong = node.size > limits.size;
  const areMany = node.members - 1 > limits.members;
  const weight = ({ size, members }: Node): number =>
    (isLong ? size / limits.size : 0) + (areMany ? members / limits.members : 0);
  const isWho = ({ name }: Node): boolean => isRoot && WHO.test(name);
  const ranked = node.children
    .map((child, at) => ({ child, at, weight: weight(child) }))
    .sort((a, b) => Number(isWho(a.child)) - Number(isWho(b.child)) || b.weight - a.weight || b.at - a.at);
  const gone = new Map<Node, Node | undefined>();
  for (const { child } of ranked) {
    if (fits(node, limits)) break;
    if (!isRoot && gone.size >= MAX_PARTS) return false;
    const tooLong = node.size - limits.size;
    const before = { size: child.size, members: child.members };
    const left = {
      size: child.size - Math.max(tooLong, 0),
      members: child.members - 1 - Math.max(node.members - 1 - limits.members, 0),
    };
    const isEnough = left.size > child.size / 4 && left.members > child.members / 4;
    if (isEnough && shrink(child, left, false)) {
      node.size -= before.size - child.size;
      node.members -= before.members - child.members;
      continue;
    }
    // In an array, the others stay at their places.
    const instead = node.isArray ? { ...child, text: "null", size: 5, members: 1, omitted: new Map() } : undefined;
    delete instead?.children;
    gone.set(child, instead);
    node.size -= before.size - (instead?.size ?? 0);
    node.members -= before.members - (instead?.members ?? 0);
    node.omitted.set(child.name, tooLong > 0 ? "TOO_LONG" : "TOO_MANY");
  }
  node.children = node.children.flatMap((child) => (gone.has(child) ? (gone.get(child) ?? []) : child));
  return fits(node, limits);
};

/** Where what was left out stood, such as "params.body". */
const collect = (node: Node, path: string, into: Map<string, Reason>): void => {
  for (const [name, reason] of node.omitted) into.set(path + name, reason);
  for (const child of node.children ?? []) collect(child, `${path}${child.name}.`, into);
};

/** What an earlier call has left out of a context that is extended now. */
const omittedBefore = (context: object): Map<string, string> => {
  const before = new Map<string, string>();
  try {
    const told: unknown = (context as Record<string, unknown>)[OMITTED_KEY];
    if (typeof told !== "object" || told === null) return before;
    for (const [name, reason] of Object.entries(told).slice(0, MAX_NAMED)) {
      if (typeof reason === "string") before.set(name, reason.slice(0, MAX_NAME));
    }
  } catch {
    // Then nothing is known of it.
  }
  return before;
};

const names = (
  before: Map<string, string>,
  now: Map<string, Reason>,
  size: number,
  escape: (json: string) => string,
  measure: Measure,
): string => {
  const all = new Map(before);
  for (const [path, reason] of now) {
    if (all.size > 2 * MAX_NAMED) break;
    all.set(path.length > MAX_NAME ? `${path.slice(0, MAX_NAME - 1)}\u2026` : path, REASONS[reason]);
  }
  const written: string[] = [];
  const quote = (text: string): string => escape(JSON.stringify(text));
  // Room for the last of them, and what is around.
  let left = size - OMITTED_KEY.length - OTHERS.length - 60;
  for (const [name, reason] of all) {
    const member = `${quote(name)}:${quote(reason)}`;
    left -= measure(member) + 1;
    if (left < 0 || written.length === MAX_NAMED) {
      const others = before.size + now.size - written.length;
      written.push(`"${OTHERS}":"${others} more"`);
      break;
    }
    written.push(member);
  }
  return `{${written.join(",")}}`;
};

const write = (node: Node): string => {
  if (!node.children) return node.key + node.text;
  const members = node.children.map(write).join(",");
  return node.key + (node.isArray ? `[${members}]` : `{${members}}`);
};
