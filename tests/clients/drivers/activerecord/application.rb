# What a Rails application has: a model, and the request's user and parameters.
require "action_controller"
require "active_record"
require_relative "audit"

class Todo < ActiveRecord::Base
  self.table_name = "todo"
end

User = Struct.new(:id)

module Authentication
  # Stands for Devise and its like.
  def current_user
    request.env["test.user"]
  end
end

def post(controller, action, user_id, path: "/todo", **params)
  user = User.new(user_id)
  environment = Rack::MockRequest.env_for("http://localhost/", method: "POST", params: params, "test.user" => user)
  environment["PATH_INFO"] = path
  status, = controller.action(action).call(environment)
  raise "status #{status}" unless status == 204
end
