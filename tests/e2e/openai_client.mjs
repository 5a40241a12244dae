// The official JavaScript client, pointed at a gateway, without changes. Prints one JSON object; the Python test judges it.
// Run: node openai_client.mjs BASE_URL MODEL, with openai installed in NODE_MODULES (an environment variable).
import {createRequire} from 'node:module';

const require = createRequire(process.env.NODE_MODULES + '/');
const {default: OpenAI} = await import(require.resolve('openai'));
const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({baseURL, apiKey: 'none', maxRetries: 0, timeout: 180_000});
const messages = [{role: 'user', content: 'What is the capital of France?'}];
const greedy = {model, messages, temperature: 0, max_tokens: 24};

const models = [];
for await (const entry of client.models.list()) models.push(entry.id);

const whole = await client.chat.completions.create(greedy);

let streamed = '', chunks = 0, usage = null;
for await (const chunk of await client.chat.completions.create(
         {...greedy, stream: true, stream_options: {include_usage: true}})) {
  streamed += chunk.choices[0]?.delta?.content ?? '';
  chunks += 1;
  usage = chunk.usage ?? usage;
}

const choices = await client.chat.completions.create({...greedy, temperature: 1, seed: 5, n: 2});
const completion = await client.completions.create({model, prompt: 'The sky is', temperature: 0, max_tokens: 6, logprobs: 2});

let refusal = null;
try {
  await client.chat.completions.create({...greedy, model: 'absent'});
} catch (error) {
  refusal = {name: error.constructor.name, status: error.status, code: error.code};
}

const stream = await client.chat.completions.create({...greedy, max_tokens: 400, stream: true});
let before_abort = 0;
for await (const _ of stream) {
  before_abort += 1;
  if (before_abort === 3) break;  // the client leaves in mid-stream
}

console.log(JSON.stringify({
  models,
  whole: whole.choices[0].message.content,
  finish: whole.choices[0].finish_reason,
  streamed,
  chunks,
  usage,
  choices: choices.choices.map((choice) => choice.message.content),
  completion: completion.choices[0].text,
  tokens: completion.choices[0].logprobs.tokens,
  refusal,
  before_abort,
}));
