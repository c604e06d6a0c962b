// A clipd process, from its start on free ports to its end.

import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const { CLIPD, REPOSITORY } = process.env;

export const folder = fs.mkdtempSync(path.join(os.tmpdir(), "clipd-page-"));
process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));

export const fixture = (name) => path.join(REPOSITORY, "tests/fixtures", name);

/** The files of the embedded model, and those of the page. */
export const MODEL = path.join(REPOSITORY, "src/model/builtin");
export const PAGE = path.join(REPOSITORY, "src/http/page");

/** Names of the sample pictures of the fixtures, with their files. */
export const PICTURES = ["airplane", "apple", "car", "cat", "dog", "guitar", "pizza", "umbrella"];

export class Server {
  /** Ready once it is returned. `http`: the address to listen on. */
  static async start(flags = [], http = "127.0.0.1:0") {
    const server = new Server();
    // Settings of the person who runs the tests are not settings of the tests.
    const own = Object.entries(process.env).filter(([name]) => !name.startsWith("CLIPD"));
    const ports = ["--listen=127.0.0.1:0", `--http-listen=${http}`, "--metrics-listen=127.0.0.1:0"];
    // What `auto` takes depends on the machine.
    const all = ["serve", ...ports, "--log-format=json", "--device=cpu", ...flags];
    server.process = spawn(CLIPD, all, { env: Object.fromEntries(own), stdio: ["ignore", "ignore", "pipe"] });
    server.ended = new Promise((done) => server.process.once("exit", done));
    const log = [];
    for await (const line of createInterface({ input: server.process.stderr })) {
      log.push(line);
      const { fields } = JSON.parse(line);
      if (fields.message === "starting") {
        [server.grpc, server.address] = [fields.grpc, fields.http];
        server.url = `http://${fields.http}/`;
      }
      if (fields.message === "ready") {
        // Somebody has to read it, or the server would wait.
        server.process.stderr.resume();
        return server;
      }
    }
    throw new Error(`the server did not start:\n${log.join("\n")}`);
  }

  /** Without a farewell. */
  kill() {
    this.process.kill("SIGKILL");
    return this.ended;
  }

  stop() {
    this.process.kill("SIGTERM");
    return this.ended;
  }

  /** Takes a place for calls, and keeps it until what is returned is called. */
  async hold() {
    const [host, port] = this.address.split(":");
    const socket = net.connect(Number(port), host);
    socket.on("error", () => {});
    const head = ["POST /v1/embeddings HTTP/1.1", "host: x", "content-length: 100", "expect: 100-continue", "", ""];
    socket.write(head.join("\r\n"));
    // The server asks for the body once the call has its place.
    await new Promise((done) => socket.once("data", done));
    return () => socket.destroy();
  }
}

/** A file of keys with one key; its secret. */
export function key(...flags) {
  const file = path.join(folder, `keys-${Math.random().toString(36).slice(2)}.toml`);
  const secret = execFileSync(CLIPD, ["keys", "add", "tester", ...flags, "--file", file], { encoding: "utf8" });
  return { file, secret: secret.trim() };
}
