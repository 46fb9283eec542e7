// An app as its user has it: a copy of its folder, its own database, its own process, and what is in the database.
import { execFile, spawn } from "node:child_process";
import { createHmac, randomUUID } from "node:crypto";
import { cp, readFile, rm, symlink } from "node:fs/promises";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

const work = process.env.BEMI_CLIENTS_WORK;
if (!work || !process.env.PGPORT) throw new Error("run this by tests/clients/apps.sh");

// Whatever ends the tests ends the app.
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

const run = promisify(execFile);

const isAtLeast = (version, wanted) => version.localeCompare(wanted, undefined, { numeric: true }) >= 0;

/** Everything of the app's folder but what is installed and compiled, with what is installed beside it. */
async function copyOfApp(name) {
  const installed = path.join(work, "apps", name);
  const folder = path.join(work, "run", `${name}-${process.pid}`);
  await rm(folder, { recursive: true, force: true });
  await cp(installed, folder, {
    recursive: true,
    filter: (source) => !["node_modules", "dist"].includes(path.relative(installed, source)),
  });
  await symlink(path.join(installed, "node_modules"), path.join(folder, "node_modules"));
  return folder;
}

/** The node-postgres that the app has, or its driver. */
function findPg(folder) {
  const require = createRequire(path.join(folder, "package.json"));
  try {
    return require("pg");
  } catch {
    return createRequire(require.resolve("@mikro-orm/postgresql"))("pg");
  }
}

function url(role, database) {
  const { PGHOST, PGPORT } = process.env;
  return `postgres://${role}@${PGHOST}:${PGPORT}/${database}`;
}

async function environment(folder, database) {
  const { engines } = JSON.parse(await readFile(path.join(folder, "package.json"), "utf8"));
  const wanted = engines?.node.replace(">=", "");
  const bin = wanted && !isAtLeast(process.versions.node, wanted) ? `${process.env.BEMI_NODE}:` : "";
  return { ...process.env, PATH: bin + process.env.PATH, DATABASE_URL: url(process.env.PGUSER, database), NO_COLOR: "1", AUTH_SECRET: randomUUID() };
}

export class App {
  static async make({ name, ...commands }) {
    const app = new App();
    app.name = name;
    app.commands = commands;
    app.database = `app_${name.replace(/\W/g, "_")}_${process.pid}`;
    app.folder = await copyOfApp(name);
    app.env = await environment(app.folder, app.database);
    app.agent = new http.Agent({ keepAlive: true });

    const pg = findPg(app.folder);
    const server = new pg.Client({ database: "postgres" });
    await server.connect();
    await server.query(`CREATE DATABASE ${app.database}`);
    await server.end();
    app.client = new pg.Client({ database: app.database });
    await app.client.connect();
    return app;
  }

  async command(line) {
    const [command, ...args] = line.split(" ");
    try {
      return await run(command, args, { cwd: this.folder, env: this.env });
    } catch (error) {
      throw new Error(`${this.name}: ${line}\n${error.stdout}${error.stderr}`);
    }
  }

  async rows(text, values) {
    return (await this.client.query(text, values)).rows;
  }

  /** The app itself runs as a role that may do no more than it needs; the commands run as a superuser. */
  async makeRole() {
    const role = this.database;
    await this.rows(`CREATE ROLE ${role} LOGIN`);
    await this.rows(`GRANT SELECT, INSERT, UPDATE, DELETE ON todo TO ${role}`);
    await this.rows(`GRANT USAGE ON SEQUENCE todo_id_seq TO ${role}`);
    await this.rows(`GRANT SELECT ON bemi.changes TO ${role}`);
  }

  async start(settings = {}) {
    const [command, ...args] = this.commands.start.split(" ");
    const env = { ...this.env, DATABASE_URL: url(this.database, this.database), ...settings };
    const child = spawn(command, args, { cwd: this.folder, env, stdio: ["ignore", "pipe", "pipe"] });
    this.child = child;
    process.once("exit", () => child.kill());
    this.errors = "";
    child.stderr.setEncoding("utf8").on("data", (text) => (this.errors += text));
    this.exited = new Promise((resolve) => child.once("exit", resolve));
    let output = "";
    for await (const line of createInterface({ input: child.stdout })) {
      output += `${line}\n`;
      const port = /^listening on (\d+)/.exec(line)?.[1];
      if (port) {
        this.port = Number(port);
        child.stdout.resume();
        return;
      }
    }
    throw new Error(`${this.name} does not start:\n${output}${this.errors}`);
  }

  async stop() {
    this.agent.destroy();
    if (!this.child) return;
    this.child.kill();
    await this.exited;
    this.child = undefined;
    this.port = undefined;
  }

  isRunning() {
    return this.child?.exitCode === null && this.child.signalCode === null;
  }

  /** A request of a user; `body` is JSON text or what becomes it. Returns `{ status, body }`. */
  request(method, url, { user = 187234, body } = {}) {
    if (!this.port) throw new Error(`${this.name} does not run`);
    const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
    // What a client says of itself, and what the app believes.
    const signature = createHmac("sha256", this.env.AUTH_SECRET).update(String(user)).digest("hex");
    const headers = { "x-user-id": "1", authorization: `Bearer ${user}.${signature}` };
    if (text !== undefined) {
      headers["content-type"] = "application/json";
      headers["content-length"] = Buffer.byteLength(text);
    }
    this.open = (this.open ?? 0) + 1;
    this.most = Math.max(this.most ?? 0, this.open);
    return new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port: this.port, agent: this.agent, method, path: url, headers };
      const request = http.request(options, async (response) => {
        let answer = "";
        for await (const chunk of response.setEncoding("utf8")) answer += chunk;
        resolve({ status: response.statusCode, body: answer });
      });
      request.on("error", reject);
      request.end(text);
    }).finally(() => this.open--);
  }

  /** A request that succeeds; returns what its JSON says. */
  async call(method, url, options) {
    const { status, body } = await this.request(method, url, options);
    if (status >= 300) throw new Error(`${method} ${url}: ${status} ${body}\n${this.errors}`);
    return JSON.parse(body);
  }

  /** What was recorded while `work` ran: what the requests changed, and what the app's timer wrote. */
  async changesOf(work) {
    await this.rows("SELECT bemi.sync()");
    const [{ position }] = await this.rows("SELECT coalesce(max(commit_position), '0/0') AS position FROM bemi.changes");
    const result = await work();
    await this.rows("SELECT bemi.sync()");
    const changes = await this.rows(
      `SELECT primary_key, "table", operation, before, after, context, committed_at, id,
              coalesce(after->>'task', before->>'task') AS task
       FROM bemi.changes WHERE commit_position > $1 ORDER BY source, commit_position, sequence`,
      [position],
    );
    const isBackground = ({ task }) => task === "background";
    return {
      result,
      changes: changes.filter((change) => !isBackground(change)),
      background: changes.filter(isBackground),
    };
  }

  async remove() {
    await this.stop();
    await this.rows("SELECT bemi.stop(drop_slot => true)").catch(() => {});
    await this.client.end();
    await rm(this.folder, { recursive: true, force: true });
  }
}
