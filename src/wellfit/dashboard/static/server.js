// The one way to the server. A post carries the word that the page was given: another site's page does not know it.

let word = "";

export class Refused extends Error {}

export async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 401) location.assign("/");
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(body.error ?? `the server answered ${answer.status}`);
  return body;
}

export async function hello() {
  const said = await ask("/api/hello");
  word = said.word;
  return said;
}

export async function post(path, body) {
  const send = () => fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json", "x-wellfit-word": word },
    body: JSON.stringify(body),
  });
  let answer = await send();
  if (answer.status === 403) {
    await hello(); // the server was started anew since this page was loaded
    answer = await send();
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(said.error ?? `the server answered ${answer.status}`);
  return said;
}
