import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: "./schema.js",
  out: "./generated",
  dbCredentials: { url: process.env.DATABASE_URL },
  ...(process.env.SCHEMAS && { schemaFilter: process.env.SCHEMAS.split(",") }),
});
