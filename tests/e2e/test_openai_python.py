"""The official Python client, pointed at a gateway, without changes."""
import openai
import pytest

CHAT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(pd_afd):
    return openai.OpenAI(base_url=pd_afd.url + "/v1", api_key="none", timeout=180, max_retries=0)


@pytest.fixture(scope="module")
def model(pd_afd):
    return pd_afd.model_name


def test_models_are_listed_and_found(client, model):
    assert [entry.id for entry in client.models.list().data] == [model]
    assert client.models.retrieve(model).object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("absent")
    assert error.value.code == "model_not_found"


def test_a_chat_is_answered(client, model):
    reply = client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=24)
    assert reply.choices[0].message.content.strip()  # which words is test_exactness.py's: the model is a small one
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.model == model
    assert reply.usage.completion_tokens >= 1
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_streamed_chat_is_the_same_text(client, model):
    whole = client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=24)
    chunks = list(client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=24, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content, "the first event came before the first token: a client would time that"
    assert len({chunk.id for chunk in chunks}) == 1
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason]
    assert finishes == [whole.choices[0].finish_reason]
    assert all(chunk.usage is None for chunk in chunks)
    assert len(chunks) > 5, "the text did not come token by token"


def test_include_usage_adds_one_chunk_without_choices(client, model):
    chunks = list(client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=8, stream=True,
                                                 stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 8
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_max_tokens_and_its_newer_name_end_the_answer(client, model):
    for field in ("max_tokens", "max_completion_tokens"):
        reply = client.chat.completions.create(model=model, messages=CHAT, temperature=0, **{field: 5})
        assert reply.usage.completion_tokens == 5, field
        assert reply.choices[0].finish_reason == "length", field


def test_n_choices_come_whole_and_streamed(client, model):
    reply = client.chat.completions.create(model=model, messages=CHAT, n=2, seed=7, max_tokens=16)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.choices[0].message.content != reply.choices[1].message.content
    texts, finishes = {0: "", 1: ""}, {0: [], 1: []}
    for chunk in client.chat.completions.create(model=model, messages=CHAT, n=2, seed=7, max_tokens=16, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] += [choice.finish_reason] if choice.finish_reason else []
    assert texts == {choice.index: choice.message.content for choice in reply.choices}
    assert [len(reasons) for reasons in finishes.values()] == [1, 1]


def test_a_seed_repeats_an_answer(client, model):
    def sample(seed):
        return client.completions.create(model=model, prompt="Once upon a time", temperature=1, max_tokens=24, seed=seed)
    assert sample(11).choices[0].text == sample(11).choices[0].text
    assert sample(11).choices[0].text != sample(12).choices[0].text


def test_stop_strings_end_the_text_before_them(client, model):
    whole = client.completions.create(model=model, prompt="One two three four", temperature=0, max_tokens=32)
    text = whole.choices[0].text
    assert len(text) > 12
    stop = text[6:10]  # whatever it is, and across whatever tokens it lies
    reply = client.completions.create(model=model, prompt="One two three four", temperature=0, max_tokens=32, stop=[stop])
    assert reply.choices[0].text == text[:text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    streamed = client.completions.create(model=model, prompt="One two three four", temperature=0, max_tokens=32,
                                         stop=[stop], stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed if chunk.choices) == text[:text.index(stop)]


def test_chat_logprobs_name_each_token_and_its_alternatives(client, model):
    reply = client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=8, logprobs=True,
                                           top_logprobs=3)
    content = reply.choices[0].logprobs.content
    assert len(content) == reply.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token, "greedy takes the likeliest"
        logprobs = [entry.logprob for entry in token.top_logprobs]
        assert logprobs == sorted(logprobs, reverse=True)
    text = b"".join(bytes(token.bytes) for token in content).decode()
    assert text.startswith(reply.choices[0].message.content)


def test_completion_logprobs_have_openais_older_form(client, model):
    reply = client.completions.create(model=model, prompt="The sky is", temperature=0, max_tokens=6, logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == 6
    assert all(len(top) == 2 for top in logprobs.top_logprobs)
    assert "".join(logprobs.tokens) == reply.choices[0].text


def test_token_id_prompts_mean_the_same_as_their_text(client, model):
    # Ids of "Hello world" in SmolLM2's vocabulary.
    ids = [19556, 905]
    by_ids = client.completions.create(model=model, prompt=ids, temperature=0, max_tokens=8, echo=True)
    by_text = client.completions.create(model=model, prompt="Hello world", temperature=0, max_tokens=8, echo=True)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.choices[0].text.startswith("Hello world")
    assert by_ids.usage.prompt_tokens == len(ids)


def test_echo_with_no_new_tokens_returns_the_prompt(client, model):
    reply = client.completions.create(model=model, prompt="Just this.", max_tokens=0, echo=True)
    assert reply.choices[0].text == "Just this."
    assert reply.usage.completion_tokens == 0


def test_a_streamed_completion_is_the_same_text(client, model):
    whole = client.completions.create(model=model, prompt="The sea was", temperature=0, max_tokens=20)
    chunks = list(client.completions.create(model=model, prompt="The sea was", temperature=0, max_tokens=20, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[0].choices[0].text, "the first event came before the first token: a client would time that"


def test_multi_byte_characters_are_never_cut(client, model):
    prompt = "Repeat exactly: 日本語 – größte Straße – 🎉🎉🎉\n日本語 – größte Straße – 🎉🎉🎉\n日本語 – größte"
    whole = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=24).choices[0].text
    chunks = client.completions.create(model=model, prompt=prompt, temperature=0, max_tokens=24, stream=True)
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole
    assert "\ufffd" not in "".join(pieces[:-2]), pieces
    assert any(ord(character) > 127 for character in whole), f"the model did not repeat it: {whole!r}"


def test_timings_say_which_worker_ran_which_stage(client, model, pd_afd):
    reply = client.chat.completions.create(model=model, messages=CHAT, temperature=0, max_tokens=16,
                                           extra_body={"tandem": {"timings": True}})
    tandem = reply.model_extra["tandem"]
    assert tandem["topology"] == "pd-afd"
    assert tandem["prefill_worker"] == "prefill-0"
    assert tandem["attention_worker"] == "attention-0"
    workers = {stage["stage"]: stage["worker"] for stage in tandem["stages"]}
    assert workers == {"prefill": "prefill-0", "attention": "attention-0", "ffn": "ffn-0"}
    assert all(stage["seconds"] > 0 and stage["calls"] > 0 for stage in tandem["stages"])
    assert tandem["ttft_seconds"] > 0


def test_errors_are_the_clients_own_exceptions(client, model):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model=model, messages=CHAT, temperature=7)
    assert error.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="absent", messages=CHAT)
