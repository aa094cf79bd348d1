// Anthropic's SDK for Node: messages.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { main, meaning } from "./common.mjs";

class Messages {
  static NAME = "node-messages";

  constructor(url, key, model) {
    this.client = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 20_000 });
    this.model = model;
  }

  options(conversation, { limit, schema, system, tools }) {
    const messages = conversation.map((turn) => {
      if (turn.user) return { role: "user", content: turn.user };
      if (turn.calls) return { role: "assistant", content: turn.calls.raw };
      const content = turn.results.map(({ call, text }) => ({
        type: "tool_result", tool_use_id: call.id, content: text,
      }));
      return { role: "user", content };
    });
    return {
      model: this.model,
      messages,
      max_tokens: limit ?? 4096,
      ...(system && { system }),
      ...(schema && { output_config: { format: { type: "json_schema", schema } } }),
      ...(tools && {
        tools: tools.map(({ name, description, schema }) => ({ name, description, input_schema: schema })),
      }),
    };
  }

  async ask(conversation, options) {
    const asked = this.options(conversation, options);
    const message = options.stream
      ? await this.client.messages.stream(asked).finalMessage()
      : await this.client.messages.create(asked);
    const { usage } = message;
    const cached = usage.cache_read_input_tokens ?? 0;
    const of = (kind) => message.content.filter(({ type }) => type === kind);
    return {
      text: of("text").map(({ text }) => text).join(""),
      stop: { end_turn: "end", max_tokens: "length", tool_use: "calls" }[message.stop_reason],
      calls: of("tool_use").map(({ id, name, input }) => ({ id, name, input })),
      usage: {
        input: usage.input_tokens + cached + (usage.cache_creation_input_tokens ?? 0),
        output: usage.output_tokens,
        cached,
      },
      raw: message.content.map(({ parsed, parsed_output, ...block }) => block),
    };
  }

  async cancel(conversation, after) {
    const stream = await this.client.messages.create({ stream: true, ...this.options(conversation, {}) });
    let seen = 0;
    for await (const event of stream) if (event.type === "content_block_delta" && ++seen === after) break;
    assert.equal(seen, after);
  }

  explain(error) {
    return [meaning(error, Anthropic), error.headers?.get("retry-after")];
  }

  async extras() {
    const messages = [{ role: "user", content: "How much is this?" }];
    const count = await this.client.messages.countTokens({ model: this.model, messages });
    assert.ok(count.input_tokens > 0);
  }
}

await main(Messages);
