# The recipe for ActiveRecord with marginalia: comments instead of transactions.
require_relative "application"
require "marginalia"

# In Rails, config/database.yml says it, and marginalia includes itself.
ActiveRecord::Base.establish_connection("#{ENV.fetch("DATABASE_URL")}?pool=1&prepared_statements=false")
ActiveRecord::Base.connection
ActiveRecord::ConnectionAdapters::PostgreSQLAdapter.include(Marginalia::ActiveRecordInstrumentation)
ActionController::API.include(Marginalia::ActionControllerInstrumentation)

class ApplicationController < ActionController::API
  include Authentication

  around_action :act_as_current_user

  private

  def act_as_current_user(&action)
    context = Audit.comment(user_id: current_user&.id, endpoint: request.path)
    Marginalia.with_annotation(context, &action)
  end
end

class TodosController < ApplicationController
  def many
    Todo.create!(task: "Read")
    Todo.insert_all([{ task: "Draw" }, { task: "Sing" }])
    Todo.where(task: "Draw").update_all(is_completed: true)
    Todo.find_by!(task: "Read").update!(task: "Write")
    Todo.transaction { Todo.where(task: "Sing").delete_all }
  end
end

hostile = "/* */ Bemi*/; DROP TABLE todo; -- ' \\ ? $1 é\u2028"
post(TodosController, :many, 1, path: hostile)
Marginalia::Comment.prepend_comment = true
post(TodosController, :many, 2)
Todo.create!(task: "Nobody, of marginalia")
