import { type Places, places } from "./sql.js";

/** What a session's settings mean for the text that is sent to it. */
export interface Session {
  /** Whether backslashes in strings stand for themselves. */
  readonly areStringsStandard: boolean;
  /** Whether the database holds any character. */
  readonly isUtf8: boolean;
}

/**
 * The comment that carries a context. Nothing in it can end it, or begin another: each star next to a slash is written
 * as JSON's escape of it.
 */
export const comment = (json: string, isUtf8: boolean): string => {
  let safe = json.replace(/\*(?=\/)|(?<=\/)\*/g, "\\u002a");
  // A character that the database lacks would fail the statement.
  if (!isUtf8) safe = safe.replace(/[\x80-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return `/*Bemi ${safe} Bemi*/`;
};

/** Whether a text has a statement that writes. */
export const writes = (text: string): boolean => places(text, true).writes;

/** The text with a context for each of its statements that write; the same text if there is none. */
export const withComments = (text: string, json: string, session: Session): string => {
  const found: Places = places(text, session.areStringsStandard);
  if (!found.writes) return text;
  const added = comment(json, session.isUtf8);
  if (found.isUnsure) return `${added} ${text}`;
  let [out, from] = ["", 0];
  for (const end of found.ends) {
    out += `${text.slice(from, end)} ${added}`;
    from = end;
  }
  return out + text.slice(from);
};
