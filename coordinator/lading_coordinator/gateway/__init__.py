"""The data plane: HTTP/1.1 on bare asyncio protocols, and the four OpenAI calls that ride on it."""
