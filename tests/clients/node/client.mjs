// A client of clipd: client.mjs TARGET embed|stream INPUT..., or client.mjs TARGET classify LABELS PICTURE...
//
// TARGET is `dns:///HOST:PORT`; an INPUT is the path of a picture, or a text; LABELS is a file with one a line.
// CLIPD_CA (certificates to trust; without it the call goes in the clear), CLIPD_API_KEY and CLIPD_TIMEOUT (seconds)
// are read from the environment. The stubs are made of the protocol when it starts.
import { once } from "node:events";
import { existsSync, readFileSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const PROTO = fileURLToPath(new URL("../../../proto", import.meta.url));
const TIMEOUT_MS = 1000 * Number(process.env.CLIPD_TIMEOUT ?? 10);
// How often in a row a stream may end without an answer.
const FRUITLESS = 5;

// Calls are spread over all addresses of the name. What a server refuses, or loses, is sent again: a call changes
// nothing, so it may run twice. A hint of the server when to try (grpc-retry-pushback-ms) is kept to.
const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: [{ service: "clip.v1.ClipService" }],
      retryPolicy: {
        maxAttempts: 5,
        initialBackoff: "0.1s",
        maxBackoff: "2s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
      },
    },
  ],
};

const { clip } = grpc.loadPackageDefinition(
  loadSync("clip/v1/clip.proto", { includeDirs: [PROTO], longs: Number, defaults: true, oneofs: true }),
);

// TLS with the certificates of CLIPD_CA, and the key over it; otherwise in the clear, and without the key.
function credentials() {
  const { CLIPD_CA, CLIPD_API_KEY } = process.env;
  if (!CLIPD_CA) return grpc.credentials.createInsecure();
  const tls = grpc.credentials.createSsl(readFileSync(CLIPD_CA));
  if (!CLIPD_API_KEY) return tls;
  const key = grpc.credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Bearer ${CLIPD_API_KEY}`);
    done(null, metadata);
  });
  return grpc.credentials.combineChannelCredentials(tls, key);
}

function connect(target) {
  return new clip.v1.ClipService(target, credentials(), {
    "grpc.service_config": JSON.stringify(SERVICE_CONFIG),
    // Otherwise answers of more than 4 MB are refused here; the server's own limit is 16 MB.
    "grpc.max_receive_message_length": 32 << 20,
    // It helps texts, vectors and raw pixels; pictures in files are compressed already.
    "grpc.default_compression_algorithm": grpc.compressionAlgorithms.gzip,
  });
}

// A call with its deadline, as a promise.
function call(client, method, request) {
  const unary = promisify(client[method].bind(client));
  return unary(request, new grpc.Metadata(), { deadline: Date.now() + TIMEOUT_MS });
}

const image = (path) => ({ encoded: readFileSync(path) });
const isFile = (source) => existsSync(source) && statSync(source).isFile();
const content = (source) => (isFile(source) ? { image: image(source) } : { text: source });

// The results in the order of the inputs. A stream that ends early is opened again for what has no answer.
async function stream(client, sources) {
  const results = new Array(sources.length);
  for (let fruitless = 0; ; ) {
    const unanswered = [...sources.keys()].filter((tag) => !results[tag]);
    if (unanswered.length === 0) return results;
    const { answered, error } = await streamOnce(client, sources, unanswered, results);
    // The server stops, or the stream was old; or it has no room for another one.
    const again = !error || [grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED].includes(error.code);
    fruitless = answered > 0 ? 0 : fruitless + 1;
    if (!again || fruitless === FRUITLESS) throw error ?? new Error("inputs are without an answer");
    await sleep(100 * fruitless);
  }
}

// Sends what is unanswered, and fills in the results that come.
async function streamOnce(client, sources, unanswered, results) {
  const calls = client.StreamEmbed();
  const ended = new AbortController();
  const send = async () => {
    const timeout = { seconds: Math.floor(TIMEOUT_MS / 1000), nanos: Math.round((TIMEOUT_MS % 1000) * 1e6) };
    for (const tag of unanswered) {
      const taken = calls.write({ tag, input: content(sources[tag]), timeout });
      // It waits while the server takes no more.
      if (!taken) await once(calls, "drain", { signal: ended.signal });
    }
    calls.end();
  };
  // Why a stream has ended, the receiver says.
  const sent = send().catch(() => {});
  let answered = 0;
  let error;
  try {
    for await (const response of calls) {
      // The worker that had it was lost.
      if (response.result === "error" && response.error.code === grpc.status.UNAVAILABLE) continue;
      results[response.tag] = response;
      answered += 1;
    }
  } catch (caught) {
    error = caught;
  }
  ended.abort();
  await sent;
  return { answered, error };
}

// A line for each; its own error stands in the place of one that has no result. Returns how many have none.
function show(sources, results, line) {
  results.forEach((each, place) => {
    if (each.result === "error") console.log(`error\t${sources[place]}\t${each.error.field}: ${each.error.message}`);
    else console.log(line(sources[place], each));
  });
  return results.filter((each) => each.result === "error").length;
}

// How similar each is to the first. Embeddings have unit length, so their dot product is the cosine.
function showEmbeddings(sources, results) {
  const first = results[0].embedding?.values;
  const cosine = ({ values }) => values.reduce((sum, value, n) => sum + value * first[n], 0);
  return show(sources, results, (source, { embedding }) => `${cosine(embedding).toFixed(3)}\t${source}`);
}

async function main(target, command, ...inputs) {
  const client = connect(target);
  try {
    const { name, fingerprint } = await call(client, "GetModel", {});
    console.log(`model\t${name}\t${fingerprint}`);
    switch (command) {
      case "embed": {
        const { results } = await call(client, "Embed", { inputs: inputs.map(content) });
        return showEmbeddings(inputs, results);
      }
      case "stream":
        return showEmbeddings(inputs, await stream(client, inputs));
      case "classify": {
        const [file, ...pictures] = inputs;
        const labels = readFileSync(file, "utf8").trimEnd().split("\n");
        const { results } = await call(client, "Classify", { labels, images: pictures.map(image) });
        // The best label of each, and how many there are.
        return show(pictures, results, (picture, { predictions: { predictions } }) =>
          [predictions[0].label, picture, predictions.length].join("\t"),
        );
      }
      default:
        throw new Error(`no such call: ${command}`);
    }
  } finally {
    client.close();
  }
}

main(...process.argv.slice(2)).then(
  (failed) => (process.exitCode = failed ? 1 : 0),
  (error) => {
    console.error(error.code === undefined ? error : `${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
  },
);
