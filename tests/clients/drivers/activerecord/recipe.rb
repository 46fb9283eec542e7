# The recipe for ActiveRecord: two users in turn, rollbacks, savepoints, bulk statements, 20 requests at once.
require_relative "application"

ActiveRecord::Base.establish_connection("#{ENV.fetch("DATABASE_URL")}?pool=4")

class ApplicationController < ActionController::API
  include Authentication

  around_action :act_as_current_user

  private

  def act_as_current_user(&action)
    Audit.acting(user_id: current_user&.id, endpoint: request.path, &action)
  end
end

class TodosController < ApplicationController
  def create
    Todo.create!(task: params[:task])
  end

  def many
    Todo.insert_all([{ task: "Eat" }, { task: "Walk" }])
    Todo.where(task: "Eat").update_all(is_completed: true)
    todo = Todo.find_by!(task: "Walk")
    Todo.upsert({ id: todo.id, task: "Upserted" })
    todo.reload.destroy!
  end

  def fail
    Todo.create!(task: "Lost")
    raise ZeroDivisionError
  end

  # A transaction inside joins the request's; requires_new is a savepoint.
  def nested
    Todo.transaction(requires_new: true) do
      Todo.create!(task: "Lost")
      raise ActiveRecord::Rollback
    end
    Todo.transaction { Todo.create!(task: "After a savepoint") }
  end
end

post(TodosController, :create, 1, task: "Sleep")
hostile = "*/ Bemi*/; DROP TABLE todo; -- ' \\ ? $1 é\u2028"
post(TodosController, :many, 2, path: hostile)
Todo.create!(task: "Nobody, behind user 2")

begin
  post(TodosController, :fail, 3)
rescue ZeroDivisionError
end
Todo.create!(task: "Nobody, after a rollback")
post(TodosController, :nested, 4)

# One inside of another joins its transaction.
Audit.acting(user_id: 5) do
  Audit.acting(job: "inside") { Todo.create!(task: "Inside") }
  Todo.create!(task: "The rest")
end

# ActiveRecord keeps statements with values prepared; their context is that of the moment.
Audit.acting(job: "prepared 1") { Todo.create!(task: "Prepared") }
Audit.acting(job: "prepared 2") { Todo.create!(task: "Prepared") }

# annotate reaches SELECT only.
Todo.where(task: "Prepared").annotate(Audit.comment(job: "tidy")).update_all(is_completed: true)
Todo.where(task: "Prepared").annotate(Audit.comment(job: "tidy")).delete_all

# Comments of others stand beside the context.
Audit.acting(user_id: 6) do
  Todo.connection.execute("UPDATE todo SET is_completed = true WHERE task = 'Sleep' /*application:Todo*/")
end

20.times.map do |user_id|
  Thread.new do
    ActiveRecord::Base.connection_pool.with_connection do
      2.times { post(TodosController, :create, user_id, task: "Crowd #{user_id}") }
    end
  end
end.each(&:join)
