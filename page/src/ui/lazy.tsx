/** Views that are loaded when they are first shown (what preact/compat would give, in a few lines). */
import type { ComponentChildren, ComponentType } from "preact";
import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";

const Waiting = createContext<ComponentChildren>(null);

export const Suspense = ({ fallback, children }: { fallback: ComponentChildren; children: ComponentChildren }) => (
  <Waiting.Provider value={fallback}>{children}</Waiting.Provider>
);

export function lazy(load: () => Promise<ComponentType>): ComponentType {
  let loaded: ComponentType | undefined;
  return function Lazy() {
    const [, again] = useState(0);
    const waiting = useContext(Waiting);
    useEffect(() => {
      if (!loaded)
        void load().then((component) => {
          loaded = component;
          again(1);
        });
    }, []);
    const Component = loaded;
    return Component ? <Component /> : <>{waiting}</>;
  };
}
