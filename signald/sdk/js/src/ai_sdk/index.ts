// The entry `signald/ai-sdk`: a transport for `useChat` of the AI SDK, version 7.

export { CHUNKS_KIND, type ErrorText, type UIMessageChunk } from "./chunks.js";
export { chatTransport, SignaldChatTransport } from "./transport.js";
export type { ChatRequest, ReconnectOptions, SendOptions, TransportOptions, UIMessageLike } from "./transport.js";
