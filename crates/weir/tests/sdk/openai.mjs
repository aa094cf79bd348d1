// OpenAI's SDK for Node: chat completions and responses.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { main, meaning } from "./common.mjs";

class Base {
  constructor(url, key, model) {
    this.client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0, timeout: 20_000 });
    this.model = model;
  }

  explain(error) {
    return [meaning(error, OpenAI), error.headers?.get("retry-after")];
  }
}

class Chat extends Base {
  static NAME = "node-chat";

  options(conversation, { stream, limit, schema, system, tools }) {
    const messages = conversation.flatMap((turn) => {
      if (turn.user) return [{ role: "user", content: turn.user }];
      if (turn.calls) return [turn.calls.raw];
      return turn.results.map(({ call, text }) => ({ role: "tool", tool_call_id: call.id, content: text }));
    });
    if (system) messages.unshift({ role: "system", content: system });
    return {
      model: this.model,
      messages,
      stream,
      ...(stream && { stream_options: { include_usage: true } }),
      ...(limit && { max_completion_tokens: limit }),
      ...(schema && {
        response_format: { type: "json_schema", json_schema: { name: "somebody", strict: true, schema } },
      }),
      ...(tools && {
        tools: tools.map(({ name, description, schema }) => ({
          type: "function",
          function: { name, description, parameters: schema, strict: true },
        })),
      }),
    };
  }

  async ask(conversation, options) {
    const asked = this.options(conversation, options);
    // The helper puts the chunks together itself, and is strict about them.
    const completion = options.stream
      ? await this.client.chat.completions.stream(asked).finalChatCompletion()
      : await this.client.chat.completions.create(asked);
    const [{ message, finish_reason }] = completion.choices;
    const calls = message.tool_calls ?? [];
    const { usage } = completion;
    return {
      text: message.content ?? "",
      stop: { stop: "end", length: "length", tool_calls: "calls" }[finish_reason],
      calls: calls.map(({ id, function: { name, arguments: input } }) => ({ id, name, input: JSON.parse(input) })),
      usage: {
        input: usage.prompt_tokens,
        output: usage.completion_tokens,
        cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
      },
      raw: message,
    };
  }

  async cancel(conversation, after) {
    const stream = await this.client.chat.completions.create(this.options(conversation, { stream: true }));
    let seen = 0;
    for await (const _ of stream) if (++seen === after) break;
    assert.equal(seen, after);
  }

  async extras() {
    const models = await this.client.models.list();
    assert.ok(models.data.length > 0);
    const embedded = await this.client.embeddings.create({ model: this.model, input: "a river", dimensions: 32 });
    assert.equal(embedded.data[0].embedding.length, 32);
  }
}

class Responses extends Base {
  static NAME = "node-responses";

  options(conversation, { stream, limit, schema, system, tools }) {
    const input = conversation.flatMap((turn) => {
      if (turn.user) return [{ role: "user", content: turn.user }];
      if (turn.calls) return turn.calls.raw;
      return turn.results.map(({ call, text }) => ({ type: "function_call_output", call_id: call.id, output: text }));
    });
    return {
      model: this.model,
      input,
      store: false,
      stream,
      ...(system && { instructions: system }),
      ...(limit && { max_output_tokens: limit }),
      ...(schema && { text: { format: { type: "json_schema", name: "somebody", strict: true, schema } } }),
      ...(tools && {
        tools: tools.map(({ name, description, schema }) => ({
          type: "function", name, description, parameters: schema, strict: true,
        })),
      }),
    };
  }

  async ask(conversation, options) {
    const asked = this.options(conversation, options);
    const response = options.stream
      ? await this.client.responses.stream(asked).finalResponse()
      : await this.client.responses.create(asked);
    if (response.error) throw new OpenAI.OpenAIError(response.error.message);
    const calls = response.output.filter(({ type }) => type === "function_call");
    const cut = response.incomplete_details?.reason === "max_output_tokens";
    const text = response.output
      .filter(({ type }) => type === "message")
      .flatMap(({ content }) => content.map(({ text }) => text))
      .join("");
    return {
      text,
      stop: cut ? "length" : calls.length > 0 ? "calls" : "end",
      calls: calls.map(({ call_id, name, arguments: input }) => ({ id: call_id, name, input: JSON.parse(input) })),
      usage: {
        input: response.usage.input_tokens,
        output: response.usage.output_tokens,
        cached: response.usage.input_tokens_details.cached_tokens,
      },
      raw: response.output.map(({ parsed, parsed_arguments, ...item }) => item),
    };
  }

  async cancel(conversation, after) {
    const stream = await this.client.responses.create(this.options(conversation, { stream: true }));
    let seen = 0;
    for await (const event of stream) if (event.type === "response.output_text.delta" && ++seen === after) break;
    assert.equal(seen, after);
  }

  async extras() {}
}

await main(Chat, Responses);
