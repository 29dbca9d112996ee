/** What the playground uses of lit 3, whose bundled file has no types. */
export type TemplateResult = object;
export const nothing: unique symbol;
export function html(strings: TemplateStringsArray, ...values: unknown[]): TemplateResult;
export function svg(strings: TemplateStringsArray, ...values: unknown[]): TemplateResult;
export const noChange: unique symbol;
export function live(value: unknown): unknown;
export class Directive {}
export function directive<Values extends unknown[]>(
  kind: new () => { update(part: any, values: Values): unknown },
): (...values: Values) => unknown;
export function repeat<T>(
  items: Iterable<T>,
  key: (item: T, index: number) => unknown,
  template: (item: T, index: number) => unknown,
): unknown;
export class LitElement extends HTMLElement {
  static properties: Record<string, object>;
  readonly updateComplete: Promise<boolean>;
  requestUpdate(): void;
  createRenderRoot(): HTMLElement | ShadowRoot;
  connectedCallback(): void;
  disconnectedCallback(): void;
  protected willUpdate(changed: Map<string, unknown>): void;
  protected updated(changed: Map<string, unknown>): void;
  protected firstUpdated(changed: Map<string, unknown>): void;
  protected render(): unknown;
}
