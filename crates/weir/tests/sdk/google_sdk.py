"""Google's SDK: generateContent and streamGenerateContent."""

from google import genai
from google.genai import errors, types

from common import Answer, equal, main


class Content:
    NAME = "content"
    # The error has a body and no head.
    TELLS_HEADERS = False

    def __init__(self, url, key, model):
        options = types.HttpOptions(base_url=url, timeout=20_000, retry_options=types.HttpRetryOptions(attempts=1))
        self.client = genai.Client(api_key=key, http_options=options)
        self.model = model

    def options(self, conversation, limit=None, schema=None, system=None, tools=None):
        contents = []
        for kind, value in conversation:
            if kind == "user":
                contents.append(types.Content(role="user", parts=[types.Part(text=value)]))
            elif kind == "calls":
                contents.append(value.raw)
            else:
                answers = [
                    types.FunctionResponse(id=id, name=name, response={"result": text}) for (id, name, _), text in value
                ]
                parts = [types.Part(function_response=answer) for answer in answers]
                contents.append(types.Content(role="user", parts=parts))
        config = {"automatic_function_calling": {"disable": True}}
        if system:
            config["system_instruction"] = system
        if limit:
            config["max_output_tokens"] = limit
        if schema:
            config |= {"response_mime_type": "application/json", "response_json_schema": schema}
        if tools:
            declared = [
                types.FunctionDeclaration(
                    name=tool["name"], description=tool["description"], parameters_json_schema=tool["schema"]
                )
                for tool in tools
            ]
            config["tools"] = [types.Tool(function_declarations=declared)]
        return {"model": self.model, "contents": contents, "config": types.GenerateContentConfig(**config)}

    def ask(self, conversation, stream=False, **options):
        options = self.options(conversation, **options)
        if stream:
            answers = list(self.client.models.generate_content_stream(**options))
        else:
            answers = [self.client.models.generate_content(**options)]
        parts = [
            part
            for answer in answers
            for candidate in answer.candidates or []
            for part in (candidate.content and candidate.content.parts) or []
        ]
        calls = [(part.function_call.id, part.function_call.name, part.function_call.args) for part in parts if part.function_call]
        finish = [candidate.finish_reason for answer in answers for candidate in answer.candidates or [] if candidate.finish_reason]
        if not finish:
            raise errors.APIError(0, {"error": {"message": "a stream without an end"}})
        equal("finish reasons", len(finish), 1)
        usage = answers[-1].usage_metadata
        stops = {"STOP": "calls" if calls else "end", "MAX_TOKENS": "length", "SAFETY": "filter"}
        return Answer(
            text="".join(part.text for part in parts if part.text and not part.thought),
            stop=stops[finish[0].name],
            calls=calls,
            usage={
                "input": usage.prompt_token_count,
                "output": (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0),
                "cached": usage.cached_content_token_count or 0,
            },
            raw=types.Content(role="model", parts=[part for part in parts if part.text or part.function_call]),
        )

    def begin(self, conversation):
        stream = self.client.models.generate_content_stream(**self.options(conversation))
        return (chunk.text for chunk in stream), stream.close

    def explain(self, error):
        if not isinstance(error, errors.APIError):
            return repr(error), None
        # A key that is not known is an invalid argument here.
        invalid = error.code == 400 and "API key" in (error.message or "")
        meanings = {401: "unauthorized", 403: "unauthorized", 404: "no model", 429: "limited", 500: "unavailable", 503: "unavailable"}
        return "unauthorized" if invalid else meanings.get(error.code, repr(error)), None

    def extras(self):
        count = self.client.models.count_tokens(model=self.model, contents="How much is this?")
        assert count.total_tokens > 0, count
        embedded = self.client.models.embed_content(model=self.model, contents=["a river", "a dam"])
        equal("embeddings", len(embedded.embeddings), 2)
        assert list(self.client.models.list()), "no models"


main(Content)
