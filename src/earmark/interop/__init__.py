"""Other people's answers: what OpenAI-compatible servers, vLLM and Gonka return, read into evidence."""
