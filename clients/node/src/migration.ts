/** What a migration runs to have bemi track the tables of the schema public, those made later too. */
export const bemiUpSQL = (): string => "CREATE EXTENSION IF NOT EXISTS bemi;\nSELECT bemi.track_all();\n";

/** Its inverse. What is recorded in bemi.changes stays; the recorder has to be stopped before. */
export const bemiDownSQL = (): string => "SELECT bemi.untrack_all();\nDROP EXTENSION bemi;\n";
