// Drives the endpoint with OpenAI's own client for Node, and prints what it got as one JSON line.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.BASE_URL,
  apiKey: process.env.API_KEY,
  maxRetries: 0,
});
const asked = { model: process.env.MODEL, temperature: 0 };
const messages = [{ role: "user", content: "hello there" }];
const got = {};

got.models = (await client.models.list()).data.map((card) => card.id);

const chat = await client.chat.completions.create({ ...asked, messages, max_tokens: 6 });
got.chat = { text: chat.choices[0].message.content, usage: chat.usage };

const stream = await client.chat.completions.create({
  ...asked,
  messages,
  max_tokens: 6,
  stream: true,
  stream_options: { include_usage: true },
});
got.stream = { text: "", usage: null };
for await (const chunk of stream) {
  got.stream.text += chunk.choices[0]?.delta?.content ?? "";
  got.stream.usage = chunk.usage ?? got.stream.usage;
}

const completion = await client.completions.create({ ...asked, prompt: "def", max_tokens: 4 });
got.completion = { text: completion.choices[0].text, usage: completion.usage };

const response = await client.responses.create({ ...asked, input: "hello", max_output_tokens: 6 });
got.response = { text: response.output_text, usage: response.usage };

const events = await client.responses.create({
  ...asked,
  input: "hello",
  max_output_tokens: 6,
  stream: true,
});
got.events = { types: [], text: "" };
for await (const event of events) {
  got.events.types.push(event.type);
  if (event.type === "response.output_text.delta") got.events.text += event.delta;
}

try {
  await client.chat.completions.create({ model: "gpt-4", messages });
} catch (error) {
  got.error = { name: error.constructor.name, status: error.status, code: error.code };
}

console.log(JSON.stringify(got));
