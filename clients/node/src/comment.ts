import { inAscii, within } from "./json.js";
import { type Places, places } from "./sql.js";
import { warnOnce } from "./state.js";

/** How long the comments of a text may be together, in characters, if it has several statements. */
const MAX_TOGETHER = 16_000_000;

/** The comment that carries a context. A character that the database lacks would fail the statement. */
export const comment = (json: string, isUtf8: boolean, size?: number): string => {
  const sent = size === undefined ? json : within(json, size);
  return `/*Bemi ${isUtf8 ? sent : inAscii(sent, size)} Bemi*/`;
};

/** How many texts are remembered, and how many characters each has at most: those of an ORM come again and again. */
const MAX_KNOWN = 200;
const MAX_KNOWN_LENGTH = 2000;
const known = new Map<string, Places>();

const placesOf = (text: string): Places => {
  if (text.length > MAX_KNOWN_LENGTH) return places(text);
  let found = known.get(text);
  if (!found) {
    found = places(text);
    if (known.size >= MAX_KNOWN) known.clear();
    known.set(text, found);
  }
  return found;
};

/** Whether a text has a statement that writes. */
export const writes = (text: string): boolean => placesOf(text).writes;

/** The text with a context for each of its statements that write; the same text if there is none. */
export const withComments = (text: string, json: string, isUtf8: boolean): string => {
  const { writes, ends, isUnsure, areSeveral } = placesOf(text);
  if (!writes) return text;
  let added = comment(json, isUtf8);
  if (isUnsure) {
    if (areSeveral) {
      warnOnce("UNSURE", "bemi: in a text of several statements a backslash stands before a quote: only the first has the context.");
    }
    return `${added} ${text}`;
  }
  if (ends.length > 1 && ends.length * added.length > MAX_TOGETHER) {
    added = comment(json, isUtf8, Math.max(1000, Math.floor(MAX_TOGETHER / ends.length)));
  }
  const pieces: string[] = [];
  let from = 0;
  for (const end of ends) {
    pieces.push(text.slice(from, end), " ", added);
    from = end;
  }
  return pieces.join("") + text.slice(from);
};
