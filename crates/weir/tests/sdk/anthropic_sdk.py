"""Anthropic's SDK: messages."""

import anthropic

from common import Answer, equal, main


class Messages:
    NAME = "messages"
    TELLS_HEADERS = True

    def __init__(self, url, key, model):
        self.client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)
        self.model = model

    def options(self, conversation, stream=False, limit=None, schema=None, system=None, tools=None):
        messages = []
        for kind, value in conversation:
            if kind == "user":
                messages.append({"role": "user", "content": value})
            elif kind == "calls":
                messages.append({"role": "assistant", "content": value.raw})
            else:
                results = [
                    {"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]}
                    for (id, _, _), text in value
                ]
                messages.append({"role": "user", "content": results})
        options = {"model": self.model, "messages": messages, "max_tokens": limit or 4096}
        if system:
            options["system"] = system
        if schema:
            options["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if tools:
            options["tools"] = [
                {"name": tool["name"], "description": tool["description"], "input_schema": tool["schema"]}
                for tool in tools
            ]
        return options

    def ask(self, conversation, stream=False, **options):
        options = self.options(conversation, **options)
        if stream:
            with self.client.messages.stream(**options) as events:
                text = "".join(events.text_stream)
                message = events.get_final_message()
            equal("text of the deltas", text, "".join(block.text for block in message.content if block.type == "text"))
        else:
            message = self.client.messages.create(**options)
        assert message.type == "message" and message.role == "assistant" and message.id, message
        stops = {"end_turn": "end", "max_tokens": "length", "tool_use": "calls", "refusal": "filter"}
        usage = message.usage
        cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        return Answer(
            text="".join(block.text for block in message.content if block.type == "text"),
            stop=stops[message.stop_reason],
            calls=[(block.id, block.name, block.input) for block in message.content if block.type == "tool_use"],
            usage={
                "input": usage.input_tokens + cached + written,
                "output": usage.output_tokens,
                "cached": cached,
            },
            raw=[block.to_dict() for block in message.content],
        )

    def begin(self, conversation):
        stream = self.client.messages.create(stream=True, **self.options(conversation))
        return (event.delta.text for event in stream if event.type == "content_block_delta"), stream.close

    def explain(self, error):
        meanings = {
            anthropic.AuthenticationError: "unauthorized",
            anthropic.NotFoundError: "no model",
            anthropic.RateLimitError: "limited",
            anthropic.InternalServerError: "unavailable",
        }
        meaning = next((meanings[kind] for kind in type(error).__mro__ if kind in meanings), repr(error))
        response = getattr(error, "response", None)
        return meaning, response.headers.get("retry-after") if response is not None else None

    def extras(self):
        messages = [{"role": "user", "content": "How much is this?"}]
        count = self.client.messages.count_tokens(model=self.model, messages=messages)
        assert count.input_tokens > 0, count
        assert self.client.models.list().data, "no models"


main(Messages)
