// The entry `signald/test`: a service in memory, against which the tests of an application run.

export type { Records, TestRoom } from "./room.js";
export { TestService, type ServiceOptions } from "./service.js";
export { type Heard, type OpenStream, type Said, type TestSession, type TestStream, WorkerLost } from "./session.js";
export type { Handler, WorkerSession } from "./worker.js";
