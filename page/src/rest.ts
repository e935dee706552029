/** The views that are not needed for the first look: loaded together, when one of them is first shown. */
export { Archive } from "./archive/view";
export { Integrity } from "./integrity/view";
export { Log } from "./log/view";
export { Pipeline } from "./pipeline/view";
