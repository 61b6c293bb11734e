"""The front that an application uses, the same for Trio and asyncio: awaitable calls over the cores."""
