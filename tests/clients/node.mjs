// The node under test, for the JavaScript suites: where it is, and who speaks to it. The environment
// names it, as for the Python suites; a variable that is missing ends the run.

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} says which node to test, and is not set`);
  return value;
}

export const baseURL = `${required('KLATCH_URL').replace(/\/$/, '')}/v1`;
export const apiKey = required('KLATCH_TOKEN');

// The longest answer takes about two seconds; ten times that is a node that is stuck.
export const patience = { timeout: 20_000 };
