"""OpenAI's SDK: chat completions and responses."""

import json
from types import SimpleNamespace

import openai

from common import Answer, equal, main


class OpenAi:
    TELLS_HEADERS = True

    def __init__(self, url, key, model):
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)
        self.model = model

    def explain(self, error):
        meanings = {
            openai.AuthenticationError: "unauthorized",
            openai.NotFoundError: "no model",
            openai.RateLimitError: "limited",
            openai.InternalServerError: "unavailable",
        }
        meaning = next((meanings[kind] for kind in type(error).__mro__ if kind in meanings), repr(error))
        response = getattr(error, "response", None)
        return meaning, response.headers.get("retry-after") if response is not None else None


class Chat(OpenAi):
    NAME = "chat"

    def options(self, conversation, stream=False, limit=None, schema=None, system=None, tools=None):
        options = {"model": self.model, "messages": messages(conversation)}
        if system:
            options["messages"].insert(0, {"role": "system", "content": system})
        if stream:
            options |= {"stream": True, "stream_options": {"include_usage": True}}
        if limit:
            options["max_completion_tokens"] = limit
        if schema:
            format = {"name": "somebody", "strict": True, "schema": schema}
            options["response_format"] = {"type": "json_schema", "json_schema": format}
        if tools:
            options["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool["name"],
                        "description": tool["description"],
                        "parameters": tool["schema"],
                        "strict": True,
                    },
                }
                for tool in tools
            ]
        return options

    def ask(self, conversation, **options):
        options = self.options(conversation, **options)
        completion = self.client.chat.completions.create(**options)
        if not options.get("stream"):
            assert completion.object == "chat.completion" and completion.id, completion
            choice, usage = completion.choices[0], completion.usage
            calls, text, finish = choice.message.tool_calls or [], choice.message.content, choice.finish_reason
        else:
            calls, text, finish, usage = [], "", None, None
            for chunk in completion:
                assert chunk.object == "chat.completion.chunk" and chunk.id, chunk
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    assert finish is None, "a chunk after the finish"
                    text += choice.delta.content or ""
                    finish = choice.finish_reason
                    for delta in choice.delta.tool_calls or []:
                        if delta.index == len(calls):
                            equal("arguments at first", delta.function.arguments or "", "")
                            function = SimpleNamespace(name=delta.function.name, arguments="")
                            calls.append(SimpleNamespace(id=delta.id, function=function))
                        else:
                            calls[delta.index].function.arguments += delta.function.arguments
        stops = {"stop": "end", "length": "length", "tool_calls": "calls", "content_filter": "filter"}
        return Answer(
            text=text or "",
            stop=stops[finish],
            calls=[(call.id, call.function.name, json.loads(call.function.arguments)) for call in calls],
            usage={
                "input": usage.prompt_tokens,
                "output": usage.completion_tokens,
                "cached": usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0,
            },
            raw={
                "role": "assistant",
                "content": text or None,
                "tool_calls": [
                    {
                        "id": call.id,
                        "type": "function",
                        "function": {"name": call.function.name, "arguments": call.function.arguments},
                    }
                    for call in calls
                ],
            },
        )

    def begin(self, conversation):
        stream = self.client.chat.completions.create(**self.options(conversation, stream=True))
        return (chunk.choices[0].delta.content for chunk in stream if chunk.choices), stream.close

    def extras(self):
        assert self.client.models.list().data, "no models"
        embedded = self.client.embeddings.create(model=self.model, input=["a river", "a dam"], dimensions=32)
        equal("embeddings", [len(item.embedding) for item in embedded.data], [32, 32])
        assert embedded.usage.prompt_tokens > 0
        floats = self.client.embeddings.create(model=self.model, input="a river", dimensions=32, encoding_format="float")
        near = max(abs(a - b) for a, b in zip(floats.data[0].embedding, embedded.data[0].embedding))
        assert near < 1e-6, near


class Responses(OpenAi):
    NAME = "responses"

    def options(self, conversation, stream=False, limit=None, schema=None, system=None, tools=None):
        items = []
        for kind, value in conversation:
            if kind == "user":
                items.append({"role": "user", "content": value})
            elif kind == "calls":
                items += value.raw
            else:
                items += [{"type": "function_call_output", "call_id": id, "output": text} for (id, _, _), text in value]
        options = {"model": self.model, "input": items, "store": False, "stream": stream}
        if system:
            options["instructions"] = system
        if limit:
            options["max_output_tokens"] = limit
        if schema:
            format = {"type": "json_schema", "name": "somebody", "strict": True, "schema": schema}
            options["text"] = {"format": format}
        if tools:
            options["tools"] = [
                {
                    "type": "function",
                    "name": tool["name"],
                    "description": tool["description"],
                    "parameters": tool["schema"],
                    "strict": True,
                }
                for tool in tools
            ]
        return options

    def ask(self, conversation, **options):
        options = self.options(conversation, **options)
        response, text = self.client.responses.create(**options), None
        if options["stream"]:
            events, text, number = response, "", -1
            for event in events:
                assert event.sequence_number == number + 1, event
                number = event.sequence_number
                if event.type == "response.output_text.delta":
                    text += event.delta
                elif event.type in ("response.completed", "response.incomplete"):
                    response = event.response
                elif event.type in ("response.failed", "error"):
                    raise openai.OpenAIError(event.to_json())
            equal("text of the deltas", text, response.output_text)
        calls = [item for item in response.output if item.type == "function_call"]
        cut = response.incomplete_details and response.incomplete_details.reason == "max_output_tokens"
        return Answer(
            text=response.output_text,
            stop="length" if cut else "calls" if calls else "end",
            calls=[(call.call_id, call.name, json.loads(call.arguments)) for call in calls],
            usage={
                "input": response.usage.input_tokens,
                "output": response.usage.output_tokens,
                "cached": response.usage.input_tokens_details.cached_tokens,
            },
            raw=[item.to_dict() for item in response.output],
        )

    def begin(self, conversation):
        stream = self.client.responses.create(**self.options(conversation, stream=True))
        return (event.delta for event in stream if event.type == "response.output_text.delta"), stream.close

    def extras(self):
        pass


def messages(conversation):
    messages = []
    for kind, value in conversation:
        if kind == "user":
            messages.append({"role": "user", "content": value})
        elif kind == "calls":
            messages.append(value.raw)
        else:
            messages += [{"role": "tool", "tool_call_id": id, "content": text} for (id, _, _), text in value]
    return messages


main(Chat, Responses)
