"""Stand-in engines for tests: real processes with an engine's titles, parents and HTTP answers.

with vllm(tmp_path, model="deepseek-ai/DeepSeek-R1", tp=8) as engine:
    engine.hold(driver, 120 * GIB)
    engine.update(kv_usage=0.9, waiting=3)
"""
