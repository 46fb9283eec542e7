import { inAscii } from "./json.js";
import { type Places, places } from "./sql.js";

/** What a session's settings mean for the text that is sent to it. */
export interface Session {
  /** Whether backslashes in strings stand for themselves. */
  readonly areStringsStandard: boolean;
  /** Whether the database holds any character. */
  readonly isUtf8: boolean;
}

/** The comment that carries a context. A character that the database lacks would fail the statement. */
export const comment = (json: string, isUtf8: boolean): string => `/*Bemi ${isUtf8 ? json : inAscii(json)} Bemi*/`;

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
