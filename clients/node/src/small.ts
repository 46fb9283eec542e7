import { OMITTED_KEY } from "./fit.js";
import { type IsSecret, OMITTED } from "./secrets.js";

/** What is certain to fit, whatever it is: characters of JSON, members of objects and elements of arrays, levels. */
const MAX_LENGTH = 4000;
const MAX_MEMBERS = 200;
const MAX_DEPTH = 20;

/**
 * The JSON that `fit` makes of a context, at a fraction of the time; undefined if it is not small, or holds anything but text,
 * numbers, yes and no, arrays and plain objects. Most contexts are like that, and each request makes one.
 */
export const small = (context: object, escape: (json: string) => string, isSecret?: IsSecret): string | undefined => {
  let length = 0;
  let members = 0;

  /** "" for what JSON.stringify leaves out; undefined where it is for `fit` to say. */
  const write = (value: unknown, depth: number): string | undefined => {
    switch (typeof value) {
      case "string": {
        length += value.length;
        return length > MAX_LENGTH ? undefined : escape(JSON.stringify(value));
      }
      case "number": {
        const text = Number.isFinite(value) ? String(value) : "null";
        return text.includes("e") ? undefined : text === "-0" ? "0" : text;
      }
      case "boolean":
        return value ? "true" : "false";
      case "object":
        return value === null ? "null" : depth > MAX_DEPTH ? undefined : container(value, depth);
      case "bigint":
        return undefined;
      default:
        return "";
    }
  };

  const container = (value: object, depth: number): string | undefined => {
    if (typeof (value as { toJSON?: unknown }).toJSON === "function") return undefined;
    let text = "";
    if (Array.isArray(value)) {
      members += value.length;
      if (members > MAX_MEMBERS) return undefined;
      for (let at = 0; at < value.length; at++) {
        const element = write(value[at], depth + 1);
        if (element === undefined) return undefined;
        text += `${at === 0 ? "" : ","}${element || "null"}`;
      }
      return `[${text}]`;
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return undefined;
    const names = Object.keys(value);
    members += names.length;
    if (members > MAX_MEMBERS) return undefined;
    for (const name of names) {
      if (name === OMITTED_KEY) return undefined;
      length += name.length;
      if (length > MAX_LENGTH) return undefined;
      const given = (value as Record<string, unknown>)[name];
      const written = write(isSecret?.(name, given) ? OMITTED : given, depth + 1);
      if (written === undefined) return undefined;
      if (written !== "") text += `${text === "" ? "" : ","}${escape(JSON.stringify(name))}:${written}`;
    }
    return `{${text}}`;
  };

  try {
    return container(context, 1);
  } catch {
    return undefined;
  }
};
