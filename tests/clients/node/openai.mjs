// OpenAI's official client for JavaScript: openai.mjs BASE_URL MODEL PICTURE prints what it got as JSON.
import OpenAI, { NotFoundError } from "openai";

const [baseURL, model, picture] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });

const text = await client.embeddings.create({ model, input: "a cat" });
const image = await client.embeddings.create({ model, input: [{ image: picture }] });
const models = await client.models.list();

let wrong;
try {
  await client.embeddings.create({ model: "gpt-4", input: "a" });
} catch (error) {
  const name = error instanceof NotFoundError ? "NotFoundError" : error.constructor.name;
  wrong = { name, status: error.status, param: error.param };
}

console.log(
  JSON.stringify({
    text: text.data[0].embedding,
    picture: image.data[0].embedding,
    model: models.data[0].id,
    wrong,
  }),
);
