// Prints {"<source>/<detail-type>": [names of detail's properties]} out of AWS's own service specification.
import { loadAwsServiceSpec } from "@aws-cdk/aws-service-spec";

const database = await loadAwsServiceSpec();
const schemas = {};
for (const event of database.all("event")) {
  const root = database.get("eventTypeDefinition", event.rootProperty);
  schemas[`${event.source}/${event.detailType}`] = Object.keys(root.properties);
}
console.log(JSON.stringify(schemas));
