// The request of the page in the words of others: what to run to get the same answer without the page.

/** What is sent, for `/v1/classify`; `image` stands for base64. */
export function body({ labels, template, classifier }, image) {
  return classifier
    ? { input: [{ image }], classifier_id: classifier }
    : { input: [{ image }], labels, templates: [template] };
}

const HOLE = "\u0000";

/** A here-document of the shell in which `HOLE` becomes the file as base64. */
function here(request, file) {
  const json = JSON.stringify(request, null, 2).replace(/[\\$`]/g, "\\$&");
  const quoted = `'${file.replaceAll("'", "'\\''")}'`;
  return json.replace("\\\\u0000", () => `$(base64 < ${quoted} | tr -d '\\n')`);
}

function curl({ origin, file, keyed, ...asked }) {
  const key = keyed ? ` \\\n  -H "authorization: Bearer $CLIPD_API_KEY"` : "";
  return `curl -s ${origin}v1/classify -H 'content-type: application/json'${key} -d @- <<EOT
${here(body(asked, HOLE), file)}
EOT`;
}

function python({ origin, file, keyed, ...asked }) {
  const request = JSON.stringify(body(asked, HOLE), null, 4).replace('"\\u0000"', "image");
  const headers = ['"content-type": "application/json"'];
  if (keyed) headers.push(`"authorization": "Bearer " + os.environ["CLIPD_API_KEY"]`);
  return `import base64
import json
${keyed ? "import os\n" : ""}import urllib.request

with open(${JSON.stringify(file)}, "rb") as picture:
    image = base64.b64encode(picture.read()).decode()

body = ${request}
headers = {${headers.join(", ")}}
url = ${JSON.stringify(`${origin}v1/classify`)}
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
for each in answer["data"][0]["predictions"]:
    print(f'{each["score"]:.3f} {each["similarity"]:.3f} {each["label"]}')`;
}

function grpc({ origin, file, keyed, labels, template, classifier }) {
  const { protocol, hostname } = new URL(origin);
  const images = [{ encoded: HOLE }];
  const request = classifier ? { images, classifier } : { images, labels, templates: [template] };
  const clear = protocol === "http:" ? " --http2-prior-knowledge" : "";
  const key = keyed ? ` \\\n  -H "authorization: Bearer $CLIPD_API_KEY" --reflect-header '*'` : "";
  return `npx --yes @bufbuild/buf curl --protocol grpc${clear}${key} -d @- \\
  ${protocol}//${hostname}:50051/clip.v1.ClipService/Classify <<EOT
${here(request, file)}
EOT`;
}

export const languages = { curl, python, grpc };
