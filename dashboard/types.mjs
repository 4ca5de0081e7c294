// Writes src/types.ts, the types of the documents in openapi.json; with --check it compares.

import { readFileSync, writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";

const path = new URL("src/types.ts", import.meta.url);
const api = JSON.parse(readFileSync(new URL("openapi.json", import.meta.url), "utf8"));
const types = await openapiTS({ ...api, paths: {} }, { rootTypes: true, rootTypesNoSchemaPrefix: true });
const text = `// Made by \`npm run types\` from openapi.json. Do not edit.\n\n${astToString(types)}`;
if (!process.argv.includes("--check")) writeFileSync(path, text);
else if (readFileSync(path, "utf8") !== text) {
  console.error("src/types.ts is not what openapi.json says: run `npm run types` in dashboard/, and commit it");
  process.exit(1);
}
