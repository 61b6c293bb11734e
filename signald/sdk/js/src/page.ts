// The life of a page: it is hidden, frozen, kept for the back button, shown again, and its network comes and goes.

export interface PageEvents {
  /** The page leaves, perhaps for ever. `kept`: it may come back as it is, and must hold no socket meanwhile. */
  leaves(kept: boolean): void;
  /** The page is back after `leaves`. */
  back(): void;
  /** The page is seen again, or its network is back: a socket that looks open may be dead. */
  awake(): void;
}

/** Listen; the function that is returned stops it. Where there is no page, nothing is heard. */
export function watchPage(events: PageEvents): () => void {
  if (typeof window === "undefined" || typeof document === "undefined" || !window.addEventListener) return () => {};
  const listeners: [EventTarget, string, (event: any) => void][] = [
    [window, "pagehide", (event: PageTransitionEvent) => events.leaves(event.persisted)],
    [window, "pageshow", (event: PageTransitionEvent) => event.persisted && events.back()],
    [document, "freeze", () => events.leaves(true)],
    [document, "resume", () => events.back()],
    [document, "visibilitychange", () => document.visibilityState === "visible" && events.awake()],
    [window, "online", () => events.awake()],
  ];
  for (const [target, name, listener] of listeners) target.addEventListener(name, listener);
  return () => {
    for (const [target, name, listener] of listeners) target.removeEventListener(name, listener);
  };
}
