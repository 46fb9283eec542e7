// sync.js HOW: what an application does with its model: alter, force, or drop.
const { DataTypes, Sequelize } = require("sequelize");

const sequelize = new Sequelize(process.env.DATABASE_URL, { logging: console.log });
const attributes = {
  task: { type: DataTypes.TEXT, allowNull: false },
  is_completed: { type: DataTypes.BOOLEAN, allowNull: false, defaultValue: false },
};
// What a developer adds next.
if (process.env.NEXT) attributes.note = DataTypes.TEXT;
sequelize.define("Todo", attributes, { tableName: "todo", timestamps: false });

const actions = {
  alter: () => sequelize.sync({ alter: true }),
  force: () => sequelize.sync({ force: true }),
  drop: () => sequelize.drop({ cascade: true }),
  truncate: () => sequelize.truncate({ cascade: true }),
  // Every schema that it finds.
  dropAllSchemas: () => sequelize.dropAllSchemas(),
};
actions[process.argv[2]]().then(() => sequelize.close());
