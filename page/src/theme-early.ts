/** Runs before the first paint, so that a page with a chosen theme never flashes in the other one. */
{
  let chosen: string | null = null;
  try {
    chosen = localStorage.getItem("k2.theme");
  } catch {
    // Storage may be forbidden: the system's theme it is.
  }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset["theme"] = chosen;
}
export {};
