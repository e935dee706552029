import { render } from "preact";
import { App } from "./app";

const root = document.getElementById("page");
if (root) {
  root.replaceChildren();
  render(<App />, root);
  performance.mark("k2-shown");
}
