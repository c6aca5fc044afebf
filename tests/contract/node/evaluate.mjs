// Prints a JSON list of what the JSONata expressions that it is given come to.
import jsonata from "jsonata";

const values = await Promise.all(process.argv.slice(2).map((expression) => jsonata(expression).evaluate({})));
console.log(JSON.stringify(values));
