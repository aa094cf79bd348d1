// Runs the scenarios of scenarios.json through an SDK, as common.py does; see there what an adapter is.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

export async function main(...adapters) {
  const data = JSON.parse(readFileSync(new URL("scenarios.json", import.meta.url), "utf8"));
  const [urls, model, ...leftOut] = process.argv.slice(2);
  const all = urls.split(",").flatMap((url) =>
    adapters.flatMap((Adapter) => data.scenarios.map((scenario) => ({ url, Adapter, scenario }))),
  );
  let failed = 0;
  for (const { url, Adapter, scenario } of all) {
    const name = `${Adapter.NAME} ${scenario.name}`;
    if ([Adapter.NAME, scenario.name, name].some((one) => leftOut.includes(one))) continue;
    try {
      const adapter = new Adapter(url, scenario.key ?? "key", scenario.model ?? model);
      await perform(adapter, Adapter.NAME, scenario, data.tools);
    } catch (error) {
      failed += 1;
      console.error(`${name} at ${url}:\n${error.stack}`);
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}

async function perform(adapter, adapterName, scenario, tools) {
  const { kind = "ask", expect = {} } = scenario;
  const tag = `tag=${adapterName}-${scenario.name}`;
  const first = { user: `${scenario.prompt ?? "Hello."} [sim ${scenario.words ?? ""} ${tag}]` };
  const options = {
    stream: scenario.stream ?? false,
    limit: scenario.limit,
    schema: scenario.schema,
    system: scenario.system,
    tools: kind === "tools" ? tools : undefined,
  };
  if (kind === "ask") {
    check(await adapter.ask([first], options), expect);
  } else if (kind === "tools") {
    const answer = await adapter.ask([first], options);
    check(answer, expect);
    const results = answer.calls.map((call) => ({ call, text: "It is cold." }));
    results.at(-1).text = `${expect.answer} [sim echo ${tag}]`;
    const second = await adapter.ask([first, { calls: answer }, { results }], options);
    assert.ok(second.text.includes(expect.answer), second.text);
    assert.equal(second.stop, "end");
  } else if (kind === "error") {
    let error;
    try {
      await adapter.ask([first], options);
    } catch (caught) {
      error = caught;
    }
    assert.ok(error, "no error");
    assert.ok(!(error instanceof assert.AssertionError || error instanceof TypeError), error.stack);
    const [meaning, retryAfter] = adapter.explain(error);
    if (expect.error) assert.equal(meaning, expect.error);
    if (expect.retry_after) assert.equal(retryAfter, expect.retry_after);
  } else if (kind === "cancel") {
    await adapter.cancel([first], 3);
  } else if (kind === "extras") {
    await adapter.extras();
  }
}

function check(answer, expect) {
  if ("text" in expect) assert.equal(answer.text, expect.text);
  if ("stop" in expect) assert.equal(answer.stop, expect.stop);
  if ("json" in expect) assert.deepEqual(JSON.parse(answer.text), expect.json);
  if ("calls" in expect) {
    assert.deepEqual(answer.calls.map(({ name, input }) => [name, input]), expect.calls);
    assert.equal(new Set(answer.calls.map(({ id }) => id)).size, expect.calls.length);
  }
  for (const [name, number] of Object.entries(expect.usage ?? {})) {
    assert.equal(answer.usage[name], number, `usage ${name}`);
  }
}

export function meaning(error, SDK) {
  if (error instanceof SDK.AuthenticationError) return "unauthorized";
  if (error instanceof SDK.NotFoundError) return "no model";
  if (error instanceof SDK.RateLimitError) return "limited";
  if (error instanceof SDK.InternalServerError) return "unavailable";
  return String(error);
}
