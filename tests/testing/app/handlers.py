"""What workers of these tests do, and what their clients expect."""

from signald.sdk.trio import Client, WorkerSession


async def shout(session: WorkerSession) -> None:
    """Answer each message in capitals."""
    async for message in session:
        await session.send(message.data.upper())


async def asks(client: Client, *questions: str) -> None:
    """Ask, and expect each answer once, in order."""
    for question in questions:
        await client.send(question)
    for question in questions:
        assert (await anext(client)).data == question.upper()
