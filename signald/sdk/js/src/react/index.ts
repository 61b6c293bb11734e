// The entry `signald/react`: hooks for a page that shows a session. React is that of the page.

import { createContext, createElement, type ReactNode, useCallback, useContext, useEffect, useState, useSyncExternalStore } from "react";
import type { Client, State } from "../client.js";
import type { SendOptions } from "../core/session.js";
import type { StreamText } from "../events.js";
import type { JoinOptions } from "../rooms.js";
import { type ChatLine, conversationOf } from "./conversation.js";
import { membershipOf, NO_ROOM, type RoomView } from "./membership.js";

export type { ChatLine } from "./conversation.js";
export type { RoomView } from "./membership.js";

const Current = createContext<Client | null>(null);

/** Gives `client` to the hooks beneath it. The client is made outside of components, so that no drawing makes another one. */
export function SignaldProvider({ client, children }: { client: Client; children?: ReactNode }): ReactNode {
  return createElement(Current.Provider, { value: client }, children);
}

/** The client. @throws Error there is no provider above */
export function useSignald(): Client {
  const client = useContext(Current);
  if (client === null) throw new Error("no SignaldProvider is above this component");
  return client;
}

/** The state of the connection; `moving` needs no word to a reader. */
export function useConnectionState(): State {
  const client = useSignald();
  const subscribe = useCallback((changed: () => void) => client.on("state", changed), [client]);
  return useSyncExternalStore<State>(
    subscribe,
    () => client.state,
    () => "connecting",
  );
}

/** True when there has been no connection for a while: what a reader may be told. A deploy never makes it true, and a short break does not. */
export function useIsAway(afterMs = 1500): boolean {
  const state = useConnectionState();
  const gone = state === "offline" || state === "connecting";
  const [away, setAway] = useState(false);
  useEffect(() => {
    if (!gone) return;
    const timer = setTimeout(() => setAway(true), afterMs);
    return () => {
      clearTimeout(timer);
      setAway(false);
    };
  }, [gone, afterMs]);
  return away;
}

const NOTHING: readonly ChatLine[] = [];

/**
 * The conversation: what was said before, what this page sends by `send`, and what the worker says, with its streams as texts that grow. It reads the
 * messages of the client, so nothing else may iterate over them. Messages of kinds other than `chat` are left to `client.on("message")`.
 */
export function useMessages(): { messages: readonly ChatLine[]; send: (data: unknown, options?: SendOptions) => void } {
  const conversation = conversationOf(useSignald());
  const messages = useSyncExternalStore(conversation.subscribe, conversation.snapshot, () => NOTHING);
  return { messages, send: conversation.send };
}

/** A stream of the worker as it is now, or the one that began last; null: there is none. `client.cancel` asks for its end. */
export function useStream(name?: string): StreamText | null {
  const client = useSignald();
  const subscribe = useCallback((changed: () => void) => client.on("stream", changed), [client]);
  const find = (): StreamText | null => {
    const { streams } = client;
    return (name === undefined ? streams.at(-1) : streams.find(({ stream }) => stream === name)) ?? null;
  };
  return useSyncExternalStore(subscribe, find, () => null);
}

/**
 * A room, as long as a component looks at it: its records, its members, and `room` to change them. All components that name a room share one
 * membership; `options` are those of the first one, but a `presence` counts whenever it is another one than before.
 */
export function useRoom(name: string, options: JoinOptions = {}): RoomView {
  const membership = membershipOf(useSignald(), name);
  const presence = JSON.stringify(options.presence);
  const subscribe = useCallback(
    (changed: () => void) => {
      membership.options = { ...options, ...membership.options };
      return membership.subscribe(changed);
    },
    // The options of a later drawing are not looked at.
    [membership],
  );
  const view = useSyncExternalStore(subscribe, membership.snapshot, () => NO_ROOM);
  const { room } = view;
  useEffect(() => {
    if (presence === undefined) return;
    membership.options = { ...membership.options, presence: options.presence };
    room?.setPresence(options.presence);
  }, [membership, room, presence]);
  return view;
}

/** Who is in a room, and what they show; and a function that says what others see of this member. */
export function usePresence<P = unknown>(name: string): [members: ReadonlyMap<string, P>, setPresence: (presence: P) => void] {
  const membership = membershipOf(useSignald(), name);
  const { members } = useRoom(name);
  const set = useCallback(
    (presence: P) => {
      membership.options = { ...membership.options, presence };
      membership.snapshot().room?.setPresence(presence);
    },
    [membership],
  );
  return [members as ReadonlyMap<string, P>, set];
}
