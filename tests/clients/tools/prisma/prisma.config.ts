import { defineConfig } from "prisma/config";

export default defineConfig({
  schema: process.env.SCHEMA ?? "schema.prisma",
  migrations: { path: "generated" },
  datasource: { url: process.env.DATABASE_URL! },
});
